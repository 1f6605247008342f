"""kubernetes.io/aws-ebs: disks of Amazon's block store, made, attached, mounted and taken away.

`signing`, `parameters`, `names` and `kept` are pure; `api` and `metadata` speak to the network;
`cloud` knows who and where this machine is; `volumes` are the few calls of the API that are needed;
`calls` attach and detach by them. What the rest of volagent sees are `driver` on nodes, `attacher`
and `provisioner` at servers.
"""
