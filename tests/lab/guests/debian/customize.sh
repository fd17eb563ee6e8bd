#!/bin/sh
# Turns the packages that mmdebstrap unpacked into the lab's Debian guest. Runs once, as a customize hook:
# $1 is the root directory, $2 the folder of this recipe's files.
set -eu
root=$1
recipe=$2

cp "$recipe/cloud.cfg" "$root/etc/cloud/cloud.cfg"
rm -f "$root/etc/cloud/cloud.cfg.d/90_dpkg.cfg"

# A root file system found by its label boots on virtio-scsi, virtio-blk, SATA and IDE alike.
echo 'LABEL=root / ext4 errors=remount-ro,noatime 0 0' >"$root/etc/fstab"
echo debian >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n::1\tlocalhost ip6-localhost\n' >"$root/etc/hosts"

# An initrd of the few drivers that a virtual machine's root disk needs: the boot loader reads it through the
# BIOS, which is slow under emulation.
sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=lz4/' "$root/etc/initramfs-tools/initramfs.conf"
cat >>"$root/etc/initramfs-tools/modules" <<'MODULES'
virtio_pci
virtio_scsi
virtio_blk
sd_mod
ata_piix
ahci
ext4
MODULES
chroot "$root" update-initramfs -u -k all

# Nothing here has a network to update from, no firmware store, no binary formats of other systems, and no file system
# that needs checking: the first minutes of a guest's life are all that tests see, and each unit costs tenths of a second
# under emulation.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
	fstrim.timer systemd-pstore.service cloud-init-hotplugd.socket systemd-binfmt.service \
	proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
	sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount kmod-static-nodes.service \
	modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service \
	modprobe@fuse.service modprobe@loop.service systemd-update-utmp.service systemd-update-utmp-runlevel.service; do
	chroot "$root" systemctl mask --quiet "$unit"
done

# Drivers that an emulated processor with every feature would load, test themselves at length, and never be used.
for module in kvm_amd kvm_intel aesni_intel ghash_clmulni_intel sha512_ssse3 sha256_ssse3 sha1_ssse3 \
	crct10dif_pclmul crc32_pclmul sg serio_raw qemu_fw_cfg; do
	echo "blacklist $module"
done >"$root/etc/modprobe.d/guest.conf"

# What was unpacked is what systemd expects: nothing to update at the first boot.
touch "$root/etc/.updated" "$root/var/.updated"

chroot "$root" systemctl enable --quiet systemd-networkd.service ssh.service

# An agent whose last answer nobody reads can't be stopped: a shutdown must not wait the usual 90 s for it.
mkdir -p "$root/etc/systemd/system/qemu-guest-agent.service.d"
printf '[Service]\nTimeoutStopSec=3\n' >"$root/etc/systemd/system/qemu-guest-agent.service.d/stop.conf"

# What must be new in each guest: cloud-init makes the SSH host keys, systemd the machine id.
rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/dbus/machine-id
: >"$root/etc/machine-id"

# No mirror and no name server of the machine that made this: guests are offline, and cloud-init's update of the
# packages, which Proxmox's user-data asks for, has nothing to do then.
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
: >"$root/etc/resolv.conf"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/tmp/*

mkdir -p "$root/boot/grub"
cp "$recipe/grub.cfg" "$root/boot/grub/grub.cfg"
