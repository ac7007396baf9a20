"""Every metric, one function each, declared with `@metric`. A new module here is found without any other edit.

Order in tables of definitions: by scope, then by module name, then as defined.
"""
