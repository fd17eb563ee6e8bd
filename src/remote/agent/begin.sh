umask 077
for base in /var/tmp /tmp; do
	if [ -d "$base" ] && mkdir -p "$base/$1" 2>/dev/null; then
		id -u "$2" >/dev/null 2>&1 || grep -q "^$2:" /etc/passwd || { rmdir "$base/$1"; echo none; exit 0; }
		echo "$base/$1 $(cat /proc/sys/kernel/random/boot_id)"
		exit 0
	fi
done
exit 1
