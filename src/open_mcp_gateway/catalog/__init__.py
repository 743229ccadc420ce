"""The servers the gateway knows: the file, the immutable snapshot in force, what changed.

Nothing here starts, reaches or decides about a server.
"""
