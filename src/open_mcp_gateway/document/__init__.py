"""Reading a YAML or JSON file into structs, with every mistake and its place reported at once.

Knows nothing of what the files mean. Everything that reads a file a person wrote goes through here.
"""
