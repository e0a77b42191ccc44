"""A folder or file per kind of device, each with a class under `@register`."""
