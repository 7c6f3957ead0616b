"""The routes and what goes in and comes out of them."""
