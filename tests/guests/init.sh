#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The whole user space of the guest: load the drivers, then print each disk's size whenever the driver changes it.
#
# /sys/block/*/size is what the kernel's driver believes. The driver reads the device only when the device interrupts
# it or at boot, so a guest that is not told prints nothing. Reading the file asks no device.
b=/bin/busybox
$b mkdir -p /proc /sys /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in /mod/*; do $b insmod "$module" 2>/dev/null; done
echo 1 >/proc/sys/kernel/printk
# Disks on USB appear a second after their driver. Wait until the number of disks has been steady for two seconds.
was=-1 steady=0
while [ "$steady" -lt 10 ]; do
  now=$($b ls -d /sys/block/[vsfn]d* /sys/block/nvme* 2>/dev/null | $b wc -l)
  if [ "$now" = "$was" ]; then steady=$((steady + 1)); else steady=0 was=$now; fi
  $b sleep 0.2
done
cd /sys/block || exit 1
seen() {
  for disk in *; do
    case $disk in loop* | ram*) continue ;; esac
    [ -e "$disk/size" ] || continue
    read -r sectors <"$disk/size"
    name=$(echo "$disk" | $b tr -c 'a-zA-Z0-9\n' '_')
    eval "last=\${last_$name-}"
    if [ "$sectors" != "$last" ]; then
      eval "last_$name=$sectors"
      echo "SIZE $disk $((sectors * 512))" >/dev/ttyS0
    fi
  done
}
seen
echo "GUEST-READY $($b uname -r)" >/dev/ttyS0
while :; do
  seen
  $b sleep 0.1
done
