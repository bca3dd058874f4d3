"""Tabs of the page that are more than a few components: each lays itself out, is wired to the page and acts.

They may use everything of the app but `page`, which holds them. Start with `texture`.
"""
