"""Transports in: HTTP over the hot protocol class or plain ASGI, and stdio. Routes and the door."""
