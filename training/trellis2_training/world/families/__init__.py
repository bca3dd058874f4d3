"""The object families of the procedural world: each is a function from a random generator to a primitive
table.

Conventions: Z up, front towards -y, free units (the builder normalises), no part thinner than about 1/50 of
the object.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import (
    animals,
    buildings,
    figures,
    food,
    frames,
    furniture,
    goods,
    nature,
    tools,
    toys,
    vehicles,
    vessels,
)

Family = Callable[[np.random.Generator], np.ndarray]

FAMILIES: dict[str, Family] = {
    f.__name__: f
    for f in (
        *(
            vessels.mug,
            vessels.bottle,
            vessels.vase,
            vessels.bowl,
            vessels.teapot,
            vessels.trophy,
            vessels.barrel,
        ),
        *(vessels.bucket, furniture.table, furniture.chair, furniture.stool, furniture.sofa, furniture.lamp),
        *(
            furniture.shelf,
            furniture.crate,
            nature.mushroom,
            nature.tree,
            nature.pine,
            nature.cactus,
            nature.flower,
        ),
        *(
            nature.snowman,
            nature.cake,
            nature.ice_cream,
            nature.duck,
            nature.rock,
            buildings.house,
            buildings.tower,
        ),
        *(
            buildings.lighthouse,
            buildings.castle,
            buildings.windmill,
            buildings.church,
            vehicles.rocket,
            vehicles.car,
        ),
        *(
            vehicles.truck,
            vehicles.boat,
            vehicles.train,
            vehicles.plane,
            figures.robot,
            figures.doll,
            figures.bear,
        ),
        *(
            figures.chess,
            tools.hammer,
            tools.screwdriver,
            tools.dumbbell,
            tools.camera,
            tools.drum,
            tools.gear,
        ),
        *(tools.television, tools.umbrella, tools.sword, tools.clock),
        # The families above come first: objects of low numbers draw from them alone.
        *(
            animals.cat,
            animals.dog,
            animals.rabbit,
            animals.pig,
            animals.elephant,
            animals.turtle,
            animals.fish,
            animals.bird,
            animals.penguin,
            animals.frog,
            animals.ladybird,
            animals.octopus,
            animals.bee,
        ),
        *(
            food.apple,
            food.burger,
            food.cupcake,
            food.pineapple,
            food.cheese,
            food.doughnut,
            food.pumpkin,
            food.carrot,
            food.melon,
            food.egg,
        ),
        *(
            frames.bicycle,
            frames.scooter,
            frames.glasses,
            frames.fence,
            frames.ladder,
            frames.bare_tree,
            frames.basket,
            frames.birdcage,
            frames.hanger,
            frames.tripod,
            frames.deck_chair,
        ),
        *(
            goods.shoe,
            goods.hat,
            goods.backpack,
            goods.guitar,
            goods.key,
            goods.padlock,
            goods.heart,
            goods.star,
            goods.phone,
            goods.laptop,
            goods.helicopter,
            goods.balloon,
        ),
        *(
            toys.teddy,
            toys.smiley,
            toys.football,
            toys.die,
            toys.book,
            toys.pencil,
            toys.headphones,
            toys.suitcase,
            toys.gamepad,
            toys.spinning_top,
            toys.flying_saucer,
            toys.monster,
        ),
    )
}

# How many come first: objects numbered below 200,000, and the first held-out ones, draw from these.
FIRST_FAMILIES = 51
