# Checks of a Linux clone. Each is a function that says what it found in its last line, returns 0 when the clone is
# right, 1 when it is not, and 75 when there is nothing to check.

skip() { echo "$*"; exit 75; }
fail() { echo "$*"; exit 1; }
booted() { sed -n 's/^btime //p' /proc/stat; }
# newer FILE: it was made since this boot (a minute of slack: the clock may have been set since).
newer() { [ "$(stat -c %Y "$1")" -ge $(($(booted) - 60)) ]; }

cloud_init() {
	command -v cloud-init >/dev/null || skip "no cloud-init here"
	said=$(cloud-init status --wait --long 2>&1) && code=0 || code=$?
	# 2 is "done, with something recoverable" (cloud-init 23.4 and later).
	case $code in
	0 | 2) echo "$said" | sed -n 's/^status: *//p' ;;
	*) echo "$said"; fail "cloud-init ended with status $code" ;;
	esac
}

host_name() {
	[ "$(hostname)" = "$FORGE_HOSTNAME" ] || fail "the host name is $(hostname), and the clone was given $FORGE_HOSTNAME"
	hostname
}

user() {
	[ "$(id -un)" = "$FORGE_USER" ] || fail "logged in as $(id -un)"
	command -v sudo >/dev/null || skip "no sudo here"
	sudo -n true || fail "$(id -un) may not become root by sudo"
	echo "$(id -un), root by sudo"
}

agent() {
	pidof qemu-ga >/dev/null || fail "the guest agent (qemu-ga) does not run"
	echo "qemu-ga runs"
}

failed_units() {
	[ -d /run/systemd/system ] || skip "no systemd here"
	# What still starts may still fail.
	systemctl is-system-running --wait >/dev/null 2>&1 || true
	units=$(systemctl list-units --failed --plain --no-legend | awk '{ print $1 }' | tr '\n' ' ')
	[ -z "$units" ] || fail "failed: $units"
	echo "none"
}

machine_id() {
	[ -e /etc/machine-id ] || skip "no machine-id here"
	id=$(cat /etc/machine-id)
	case $id in
	*[!0-9a-f]* | '') fail "/etc/machine-id is no id: $id" ;;
	esac
	newer /etc/machine-id || fail "/etc/machine-id is older than this boot: every clone has the same"
	echo "$id"
}

host_keys() {
	found=
	for key in /etc/ssh/ssh_host_*_key /etc/dropbear/dropbear_*_host_key; do
		[ -e "$key" ] || continue
		newer "$key" || fail "$key is older than this boot: every clone has the same"
		found="$found ${key##*/}"
	done
	[ -n "$found" ] || skip "no SSH host key found"
	echo "new:$found"
}

build_key() {
	files=$(ls /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys 2>/dev/null) || true
	for file in $files; do
		if grep -q "@KEY_COMMENT@" "$file" && ! grep -q "$FORGE_PUBLIC_KEY" "$file"; then
			fail "$file holds the key of a build"
		fi
	done
	echo "none"
}

disk() {
	command -v lsblk >/dev/null || skip "no lsblk here"
	[ -n "$FORGE_DISK_SIZE" ] || skip "the template's disk has no known size"
	root=$(awk '$2 == "/" { device = $1 } END { print device }' /proc/mounts)
	case $root in /dev/*) ;; *) root=/dev/$(lsblk -rno NAME,MOUNTPOINT | awk '$2 == "/" { print $1 }') ;; esac
	device=$(lsblk -rno PKNAME "$root" | head -n 1)
	whole=/dev/${device:-${root##*/}}
	size=$(lsblk -brdno SIZE "$whole")
	[ "$size" -ge "$FORGE_DISK_SIZE" ] || skip "/ is not on the disk that was made larger"
	part=$(lsblk -brdno SIZE "$root")
	[ $((size - part)) -lt 805306368 ] || [ "$(lsblk -rno NAME "$whole" | wc -l)" -gt 3 ] ||
		fail "the disk grew to $((size / 1048576)) MiB, and $root has $((part / 1048576)) MiB of it"
	used=$(df -B1 -P / | awk 'NR == 2 { print $2 }')
	[ "$used" -ge $((part / 100 * 85)) ] ||
		fail "$root grew to $((part / 1048576)) MiB, and its file system to $((used / 1048576)) MiB"
	echo "/ has $((used / 1048576)) MiB of a disk of $((size / 1048576)) MiB"
}

# A line for each thing: its name, a tab, what else is known of it. What differs between any two clones is left out.
packages() {
	if command -v dpkg-query >/dev/null; then
		dpkg-query -W -f '${Package}:${Architecture}\t${Version}\n'
	elif command -v rpm >/dev/null; then
		rpm -qa --qf '%{NAME}.%{ARCH}\t%{VERSION}-%{RELEASE}\n'
	elif command -v apk >/dev/null; then
		apk info -v | sed 's/-\([0-9][^-]*-r[0-9]*\)$/\t\1/'
	fi
}

services() {
	[ -d /run/systemd/system ] || return 0
	systemctl list-unit-files --type=service,timer,socket --no-legend --plain | awk '{ print $1 "\t" $2 }'
}

users() {
	awk -F: -v own="$FORGE_USER" '$1 != own { print $1 "\tuid " $3 ", gid " $4 ", " $6 ", " $7 }' /etc/passwd
}

# Ports of UDP from which the kernel chooses at random (32768 and more) are those of clients.
ports() {
	for table in tcp tcp6 udp udp6; do
		[ -r "/proc/net/$table" ] || continue
		case $table in tcp*) state=0A ;; *) state=07 ;; esac
		awk -v state=$state '$4 == state { sub(/.*:/, "", $2); print $2 }' "/proc/net/$table" | sort -u |
			while read -r port; do
				port=$((0x$port))
				case $table in udp*) [ $port -lt 32768 ] || continue ;; esac
				printf '%s/%d\t\n' "$table" "$port"
			done
	done
}

files() {
	find /etc -xdev -type f ! -path '/etc/ssh/ssh_host_*' ! -path '/etc/dropbear/*' ! -path '/etc/sudoers.d/90-cloud-init*' \
		! -path '*/50-cloud-init*' ! -name machine-id ! -name hostname ! -name hosts ! -name resolv.conf ! -name mailname \
		! -name 'passwd*' ! -name 'shadow*' ! -name 'group*' ! -name 'gshadow*' ! -name 'subuid*' ! -name 'subgid*' \
		! -name ld.so.cache -exec sha256sum {} + | sed 's/^\([0-9a-f]\{12\}\)[0-9a-f]*  \(.*\)$/\2\t\1/'
}

sizes() {
	for folder in /usr /var /opt /boot /home; do
		[ -d "$folder" ] || continue
		printf '%s\t%d MiB\n' "$folder" "$(($(du -skx "$folder" | cut -f 1) / 1024))"
	done
}

inventory() {
	for section in packages services users ports files sizes; do
		echo "[$section]"
		$section | sort
	done >@INVENTORY@
	chmod 644 @INVENTORY@
	# How many there are of each, in one line.
	awk '/^\[/ { at = substr($0, 2, length($0) - 2); order[++n] = at; next } { count[at]++ }
		END { for (i = 1; i <= n; i++) printf "%s%d %s", (i > 1 ? ", " : ""), count[order[i]], order[i]; print "" }' @INVENTORY@
}

remember() {
	sha256sum /etc/machine-id /etc/ssh/ssh_host_*_key 2>/dev/null >/var/tmp/forge-test.sums || true
	hostname >>/var/tmp/forge-test.sums
}

same_again() {
	[ -s /var/tmp/forge-test.sums ] || fail "nothing was noted before the second boot"
	now=$(sha256sum /etc/machine-id /etc/ssh/ssh_host_*_key 2>/dev/null; hostname)
	[ "$now" = "$(cat /var/tmp/forge-test.sums)" ] || fail "host name, machine-id or host keys changed at the second boot"
	echo "host name, machine-id and host keys are the same"
}
