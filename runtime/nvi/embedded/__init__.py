"""The project's own P4 switch: p4c's BMv2 JSON, compiled to Python, served over P4Runtime.

`program` reads the JSON, `compiler` makes Python source of it, `engine` holds tables and counters and runs packets,
`service` is the P4Runtime server, `ports` are Linux interfaces, `runner` puts them together.
"""
