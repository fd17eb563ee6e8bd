#!/bin/sh
# Turns unpacked packages into the tiny guest: $1 is the root directory, $2 the folder of this recipe's files.
# Nothing of the packages was configured, and no program of theirs runs here but busybox.
set -eu
root=$1
recipe=$2
version=$(ls "$root/lib/modules")

# What the disk's driver needs goes into the initrd; what else a tiny guest drives stays as a module.
disk_drivers="virtio_pci virtio_mmio virtio_scsi virtio_blk sd_mod"
other_drivers="virtio_net virtio_console button evdev ata_piix ahci sr_mod isofs vfat nls_ascii nls_cp437"

# Everything that is not run or linked goes.
chroot "$root" /bin/busybox depmod "$version"
dependencies="$root/lib/modules/$version/modules.dep"
# with_dependencies MODULE…: the files of the modules, each after those it needs.
with_dependencies() {
	for module; do
		sed -n "s,^\([^:]*/$module\.ko\):,\1,p" "$dependencies" |
			{ read -r own needs || true; for file in $(echo "$needs" | tr ' ' '\n' | sed '1!G;h;$!d'); do echo "$file"; done; echo "$own"; }
	done | awk 'NF && !seen[$0]++'
}
# shellcheck disable=SC2086 # lists of words
with_dependencies $disk_drivers >"$recipe/disk-modules"
# shellcheck disable=SC2086
with_dependencies $disk_drivers $other_drivers >"$recipe/all-modules"

initrd="$recipe/initrd"
mkdir -p "$initrd/bin" "$initrd/modules" "$initrd/dev" "$initrd/proc" "$initrd/sys" "$initrd/root"
cp "$root/bin/busybox" "$initrd/bin/busybox"
cp "$recipe/initrd-init" "$initrd/init"
chmod 755 "$initrd/init"
while read -r module; do
	cp "$root/lib/modules/$version/$module" "$initrd/modules/"
	echo "${module##*/}"
done <"$recipe/disk-modules" >"$initrd/modules/order"

mkdir "$recipe/modules"
while read -r module; do
	mkdir -p "$recipe/modules/${module%/*}"
	cp "$root/lib/modules/$version/$module" "$recipe/modules/$module"
done <"$recipe/all-modules"
rm -rf "$root/lib/modules/$version"
mv "$recipe/modules" "$root/lib/modules/$version"
chroot "$root" /bin/busybox depmod "$version"

mv "$root/boot/vmlinuz-$version" "$recipe/vmlinuz"
rm -rf "$root/boot" "$root/usr/share" "$root/usr/include" "$root/usr/games" "$root/var/cache" "$root/var/lib" \
	"$root/usr/lib/x86_64-linux-gnu/gconv" "$root/usr/lib/x86_64-linux-gnu/perl-base" "$root/lib/systemd" "$root/usr/lib/systemd" "$root/lib/udev" "$root/usr/lib/locale" "$root"/usr/lib/linux-image-*
mkdir -p "$root/boot/grub"
mv "$recipe/vmlinuz" "$root/boot/vmlinuz"
(cd "$initrd" && find . | cpio --quiet -o -H newc -R 0:0) >"$root/boot/initrd"
cp "$recipe/grub.cfg" "$root/boot/grub/grub.cfg"
# For who starts it without a boot loader.
cp "$root/boot/vmlinuz" "$root/boot/initrd" "$recipe/.."

mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp" "$root/root" "$root/home" "$root/mnt" \
	"$root/etc/init.d" "$root/etc/ssh" "$root/etc/acpi/PWRF" "$root/etc/pam.d" "$root/etc/sudoers.d" \
	"$root/usr/lib/tiny" "$root/usr/local/bin" "$root/var/log" "$root/var/lib/cloud" "$root/var/tmp" "$root/var/lib/sudo"
rm -rf "$root/var/run"
ln -s /run "$root/var/run"
chmod 1777 "$root/tmp" "$root/var/tmp"
chmod 700 "$root/root"
# The packages' own programs are never replaced by busybox's.
for name in $("$root/bin/busybox" --list-full); do
	mkdir -p "$root/${name%/*}"
	[ -e "$root/$name" ] || [ -L "$root/$name" ] || ln -s /bin/busybox "$root/$name"
done

install -m 755 "$recipe/rcS" "$recipe/sshd" "$recipe/agent" "$root/etc/init.d/"
install -m 755 "$recipe/udhcpc.script" "$root/etc/udhcpc.script"
install -m 755 "$recipe/seed" "$root/usr/lib/tiny/seed"
install -m 755 "$recipe/cloud-init" "$root/usr/bin/cloud-init"
rm -f "$root/sbin/shutdown"
install -m 755 "$recipe/shutdown" "$root/sbin/shutdown"
install -m 755 "$recipe/userdel" "$root/usr/sbin/userdel"
install -m 644 "$recipe/inittab" "$root/etc/inittab"
printf '#!/bin/sh\nexec /sbin/poweroff\n' >"$root/etc/acpi/PWRF/00000080"
chmod 755 "$root/etc/acpi/PWRF/00000080"

printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\ntty:x:5:\nsudo:x:27:\n' >"$root/etc/group"
printf 'root:*:19000:0:99999:7:::\n' >"$root/etc/shadow"
chmod 640 "$root/etc/shadow"
printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
printf '/bin/sh\n' >"$root/etc/shells"
printf 'tiny\n' >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost tiny\n' >"$root/etc/hosts"
printf '# mounted by the initrd\n' >"$root/etc/fstab"
: >"$root/etc/machine-id"
rm -f "$root/etc/os-release"
printf 'ID=tiny\nNAME="Tiny guest"\nPRETTY_NAME="Tiny guest of the forge lab"\nVERSION_ID="1"\n' >"$root/etc/os-release"
printf 'Tiny guest \\n \\l\n\n' >"$root/etc/issue"
printf 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' >"$root/etc/profile"

# sudo without questions: PAM lets it pass, the seed's reader says who may.
printf 'auth sufficient pam_permit.so\naccount sufficient pam_permit.so\nsession sufficient pam_permit.so\n' >"$root/etc/pam.d/sudo"
cp "$root/etc/pam.d/sudo" "$root/etc/pam.d/other"
printf 'Defaults env_reset, secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", !fqdn\nroot ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n' >"$root/etc/sudoers"
chmod 440 "$root/etc/sudoers"
rm -f "$root"/etc/sudoers.d/*
