"""How every part sees the objects: one `Client`, in-process or over HTTP, and informers."""
