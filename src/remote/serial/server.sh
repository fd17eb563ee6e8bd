# The guest's end of a connection by the serial console: takes orders line by line, and answers each with what came of it.
# $1 begins every line that is meant; the kernel may write between any two bytes, so what goes either way has a checksum.
# An emulated guest takes long to start a program, so there are few of them.
#
#   MARK run ID SHA BYTES          then so many bytes: a script in base64
#   MARK put ID SHA BYTES PATH     then the content of a file likewise; the path in base64
#   MARK hello                     is answered by the line that also tells the beginning
#   MARK bye
#
#   MARK ID STATUS OUT ERR SHA, then both streams together in base64, then MARK end ID; STATUS is bad when what came had
#   another checksum, and SHA is - when there is nothing
own=$(umask)
umask 077
mark=$1
stty -echo -ixon 2>/dev/null
# In memory, where there is such a place.
base=/dev/shm
[ -d "$base" ] && [ -w "$base" ] || base=/tmp
dir=$(mktemp -d "$base/forge-serial-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

answer() {
	out=0 err=0 sum=-
	[ ! -s "$dir/out" ] || out=$(wc -c <"$dir/out")
	both=$dir/out
	if [ -s "$dir/err" ]; then
		err=$(wc -c <"$dir/err")
		cat "$dir/err" >>"$dir/out"
	fi
	[ ! -s "$both" ] || sum=$(sha256sum <"$both")
	printf '%s %s %s %s %s %s\n' "$mark" "$1" "$2" "$((out))" "$((err))" "${sum%% *}"
	[ ! -s "$both" ] || base64 <"$both"
	printf '%s end %s\n' "$mark" "$1"
}

hello() { printf '\n%s ready %s\n' "$mark" "$user"; }

user=$(id -un)
hello
while IFS=' ' read -r word order id sha bytes path; do
	case $word in
	"$mark") ;;
	# Another build has come: let it log in.
	forge-line-*) exit 0 ;;
	*) continue ;;
	esac
	case $order in
	hello)
		hello
		continue
		;;
	bye) exit 0 ;;
	esac
	head -c "$bytes" | base64 -d >"$dir/in" 2>/dev/null
	: >"$dir/out"
	: >"$dir/err"
	came=$(sha256sum <"$dir/in")
	if [ "${came%% *}" != "$sha" ]; then
		answer "$id" bad
		continue
	fi
	case $order in
	run) (umask "$own" && exec /bin/sh "$dir/in") </dev/null >"$dir/out" 2>"$dir/err" ;;
	put) path=$(printf %s "$path" | base64 -d) && cat "$dir/in" 2>"$dir/err" >"$path" ;;
	esac
	answer "$id" $?
done
