"""One module per noun: requests, responses, routes."""
