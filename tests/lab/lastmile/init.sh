#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The first process of the guest: drivers, then the root file system on the first disk, then systemd.
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /new
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /mod/*.ko; do insmod "$module" || echo "insmod $module failed"; done
tries=0
while [ ! -e /dev/vda1 ] && [ "$tries" -lt 300 ]; do sleep 0.1; tries=$((tries + 1)); done
mount -t ext4 /dev/vda1 /new || poweroff -f
umount /proc /sys
mount --move /dev /new/dev
exec switch_root /new /sbin/init
