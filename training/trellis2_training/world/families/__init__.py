"""The object families of the procedural world: each is a function from a random generator to a primitive
table.

Conventions: Z up, front towards -y, free units (the builder normalises), no part thinner than about 1/50 of
the object.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import buildings, figures, furniture, nature, tools, vehicles, vessels

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
    )
}
