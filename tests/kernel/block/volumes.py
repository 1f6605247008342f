"""A volume with a device on this machine, taken through its life as the node does it."""

import os
from pathlib import Path

from volagent.drivers import make_drivers
from volagent.drivers.contract import (
    DriverName,
    Publication,
    VolumeKey,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.layout import Layout
from volagent.objects.meta import PodUid

IMAGE, LOCAL = DriverName("image.volagent.dev"), DriverName("kubernetes.io/local-volume")


class Volume:
    """A volume of this machine, and whoever takes it through its life."""

    def __init__(self, host, images, name, body, **spec):
        self.host = host
        self.root = images.parent / "k"
        self.root.mkdir(exist_ok=True)
        layout = Layout(str(self.root))
        self.driver = make_drivers(
            host, layout, image_dir=str(images), nfs_mount_timeout_s=30, nfs_unmount_timeout_s=30
        )[name]
        kind = "csi" if name == IMAGE else "local"
        self.capacity = spec.pop("capacity_bytes", None)
        self.source = VolumeSource(kind, body, self.capacity, persistent=True)
        self.spec = VolumeSpec(
            VolumeKey("pv/pv"), name, "pv", self.driver.read_options(self.source),
            capacity_bytes=self.capacity, read_only=bool(body.get("readOnly")), **spec,
        )  # fmt: skip
        self.stage_path = layout.device_stage(name, "pv")
        self.block = self.spec.mode is VolumeMode.BLOCK
        self.target = (
            layout.block_link(PodUid("u"), name, "pv")
            if self.block
            else layout.csi_volume(PodUid("u"), "pv")
        )
        self.done = []

    async def set_up(self, **use):
        driver, spec = self.driver, self.spec
        self.device = self._note(await driver.attach(spec)).device
        self.done.append(("detach", lambda: driver.detach("pv", self.device)))
        staged = None
        if not self.block:
            self._note(await driver.prepare(spec, self.device))
            staged = self._note(await driver.stage(spec, self.device, self.stage_path)).mount
            self.staged = staged
            self.done.append(("unstage", lambda: driver.unstage(self.staged)))
        publication = Publication(PodUid("u"), "shop/web", self.target, **use)
        done = await driver.publish(spec, publication, staged=staged, device=self.device)
        self.published = self._note(done).mount
        self.done.append(("unpublish", lambda: driver.unpublish(self.published)))
        return Path(self.target)

    def _note(self, done):
        self.evidence = [*getattr(self, "evidence", []), done.evidence]
        return done

    async def take_down(self):
        while self.done:
            await self.done.pop()[1]()
        assert not os.path.lexists(self.target)
        assert not os.path.exists(self.stage_path)
