"""Modules that know no task: wiring (containers) and the few layers everything is made of."""
