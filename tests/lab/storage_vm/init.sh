#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The first process of the storage VM: this machine's root over 9p under an overlay in memory, then the program
# named on the kernel's command line (tree=, python=, modules=, module=, form=, groups=a,b), then power off.
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /below /over /new
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
for module in /mod/*; do insmod "$module" || echo "insmod $module failed"; done
for word in $(cat /proc/cmdline); do
    case $word in tree=* | python=* | modules=* | module=* | form=* | groups=*) export "${word%%=*}"="${word#*=}" ;; esac
done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=524288,cache=loose root /below
mount -t tmpfs -o size=60% over /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/below,upperdir=/over/upper,workdir=/over/work overlay /new
for directory in proc sys dev; do mount --move "/$directory" "/new/$directory"; done
mount -t tmpfs run /new/run
mkdir -p /new/run/lock /new/run/udev /new/dev/pts /new/dev/shm "/new/lib/modules/${modules##*/}"
mount -t devpts devpts /new/dev/pts
mount -t tmpfs shm /new/dev/shm
mount --bind "/new$modules" "/new/lib/modules/${modules##*/}"
ip link set lo up
hostname storage-vm
echo "127.0.0.1 localhost storage-vm" > /new/etc/hosts
cat > /new/run/start <<'EOS'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONPATH=$tree
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
/lib/systemd/systemd-udevd --daemon
cd "$tree"
"$python" -W ignore -m "$module" /dev/ttyS1 "$form" $(echo "$groups" | tr , ' ')
echo "ended with $?"
echo o > /proc/sysrq-trigger
sleep 60
EOS
exec switch_root /new /bin/sh /run/start
