"""The web layer: HTTP and WebSocket faces of the services, without logic of their own."""
