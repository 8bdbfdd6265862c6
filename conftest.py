"""The links to the packages at the root hold no tests."""

collect_ignore = ["backends", "adapters"]
