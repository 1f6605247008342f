"""What users declare: typed, frozen views of the Kubernetes objects, quantities, names.

The stored document is the JSON as given; these views decode the parts that code works on and
ignore the rest, so an unknown field survives a round trip through the store.
"""
