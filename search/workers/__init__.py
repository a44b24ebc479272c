"""The processes that train, and the dispatcher in front of them."""
