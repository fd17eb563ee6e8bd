umask 077
id -u "$2" >/dev/null 2>&1 || grep -q "^$2:" /etc/passwd || { echo none; exit 0; }
name=$1
# place FOLDER...: makes a folder of our own in the first of these that takes it, and prints its path.
place() {
	for base; do
		if [ -d "$base" ] && mkdir -p "$base/$name" 2>/dev/null; then
			if printf '' 2>/dev/null >"$base/$name/here"; then
				echo "$base/$name"
				return 0
			fi
			rm -rf "${base:?}/$name"
		fi
	done
	return 1
}
# What commands are given lies in memory where it can: it may be secret, and what was on a disk stays in its free space.
# Of what they print there may be much.
grep -q '^[^ ]* /tmp tmpfs ' /proc/mounts 2>/dev/null && also=/tmp
# shellcheck disable=SC2086 # one word, or none
memory=$(place /dev/shm ${also-} /var/tmp /tmp) && disk=$(place /var/tmp /tmp) || exit 1
echo "$disk" >"$memory/disk" || exit 1
echo "$memory $disk"
