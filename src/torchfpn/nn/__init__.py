"""Modules that know no task: containers, common layers, models of any image size, and the receptive field."""
