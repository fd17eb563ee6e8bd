# The guest's end of a connection by the guest agent. It lies in a private folder of root's, in memory; $1 says what to
# do, $2 is the path that the files of one command begin with. What it prints lies in a second folder, on the disk.
#
#   PATH.line   the command line            PATH.in.N   its standard input, in pieces
#   PATH.begun  made when it is started     PATH.pid    its process group
#   PATH.failed made instead of it when its input could not be stored: the command is not run
#   PATH.status, DISK.out, DISK.err         what came of it
umask 077
p=$2
read -r disk <"${0%/*}/disk"
o=$disk/${p##*/}

# root goes down to the user whose account the connection is about; there are several ways, and no guest has all.
as_user() {
	entry=$(getent passwd "$user" 2>/dev/null || grep "^$user:" /etc/passwd)
	HOME=$(printf '%s\n' "$entry" | cut -d: -f6)
	USER=$user LOGNAME=$user SHELL=$(printf '%s\n' "$entry" | cut -d: -f7)
	PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	export HOME USER LOGNAME SHELL PATH
	# As logins have it.
	umask 022
	cd "$HOME" 2>/dev/null || cd /
	if [ "$user" = "$(id -un)" ]; then
		/bin/sh -c "$line"
	elif command -v runuser >/dev/null; then
		runuser -u "$user" -- /bin/sh -c "$line"
	elif command -v su >/dev/null; then
		su -s /bin/sh "$user" -c "$line"
	elif command -v sudo >/dev/null; then
		sudo -n -u "$user" /bin/sh -c "$line"
	else
		echo "nothing in this guest lets root run a command as $user (runuser, su, sudo)" >&2
		return 126
	fi
}

size() {
	bytes=$(wc -c <"$1" 2>/dev/null) || bytes=0
	echo $((bytes))
}

# gather BYTES: makes one file of the pieces of the input. Half of it must never be taken for the whole, nor nothing.
gather() {
	if [ "$1" -eq 0 ]; then
		printf '' >"$p.in"
		return
	fi
	printf '%s\n' "$p".in.* | xargs cat >"$p.in"
	printf '%s\n' "$p".in.* | xargs rm -f
	[ "$(size "$p.in")" -eq "$1" ] && return
	echo "$(size "$p.in") of $1 bytes of its input are there" >&2
	return 1
}

# pull OUT ERR MOST: what came after so many bytes of either stream; waits a second for it, and not longer than needed.
pull() {
	if [ -d "$p.failed" ]; then
		echo "failed 0 0"
		return
	fi
	if [ ! -d "$p.begun" ]; then
		echo "none 0 0"
		return
	fi
	if [ "$(cat "$p.boot")" != "$(cat /proc/sys/kernel/random/boot_id)" ]; then
		echo "rebooted 0 0"
		return
	fi
	patience=10
	while :; do
		state=running
		if [ -e "$p.status" ]; then
			state=$(cat "$p.status")
		elif ! kill -0 "$(cat "$p.pid")" 2>/dev/null; then
			state=lost
			[ -e "$p.status" ] && state=$(cat "$p.status")
		fi
		# There was no room for the status.
		[ -n "$state" ] || state=lost
		out=$(($(size "$o.out") - $1))
		err=$(($(size "$o.err") - $2))
		[ "$state" = running ] && [ "$out" -le 0 ] && [ "$err" -le 0 ] && [ "$patience" -gt 0 ] || break
		patience=$((patience - 1))
		sleep 0.1 2>/dev/null || { sleep 1; patience=0; }
	done
	# The memory that it all lies in may have gone meanwhile.
	if [ ! -d "$p.begun" ]; then
		echo "none 0 0"
		return
	fi
	[ "$out" -gt "$3" ] && out=$3
	[ "$err" -gt "$3" ] && err=$3
	echo "$state $out $err"
	[ "$out" -le 0 ] || tail -c "+$(($1 + 1))" "$o.out" | head -c "$out"
	[ "$err" -le 0 ] || tail -c "+$(($2 + 1))" "$o.err" | head -c "$err"
}

case $1 in
start)
	# A start whose answer was lost is asked for again, and must not run the command twice.
	if [ ! -d "$p.failed" ] && mkdir "$p.begun" 2>/dev/null; then
		# Until the command runs, this shell stands for it.
		echo $$ >"$p.pid"
		cat /proc/sys/kernel/random/boot_id >"$p.boot"
		if gather "$5" && printf '' >"$o.out" && printf '' >"$o.err"; then
			session=
			command -v setsid >/dev/null && session=setsid
			$session /bin/sh "$0" run "$p" "$3" </dev/null >/dev/null 2>&1 &
			echo $! >"$p.pid"
		else
			mv "$p.begun" "$p.failed"
			rm -rf "$p.in"
		fi
	fi
	pull 0 0 "$4"
	;;
run)
	user=$3
	line=$(cat "$p.line")
	exec <"$p.in" >>"$o.out" 2>>"$o.err"
	rm -f "$p.in" "$p.line"
	as_user
	echo $? >"$p.ended"
	mv "$p.ended" "$p.status"
	;;
pull) pull "$3" "$4" "$5" ;;
stop)
	kill -TERM "-$(cat "$p.pid")" 2>/dev/null
	sleep 1
	rm -rf "$p".* "$o".*
	;;
forget) rm -rf "$p".* "$o".* ;;
end) rm -rf "${0%/*}" "$disk" ;;
esac
