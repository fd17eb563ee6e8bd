d=$1
mark() { printf '%s %s\n' "$nonce" "$*"; }
# run FOLDER: becomes the script. Its variables may have any names, so none of ours is looked at after them.
run() {
@EXPORTS@
  cd @DIR@ || exit 124
  exec @INTERPRETER@ "$1/script"
}
# watch GROUP PARENT: ends the script with all that it started when its time is over, or when nobody waits for it any
# more. It has the script's own rights: whoever is logged in may not end what runs as root.
watch() {
  # Else it would hold the script's output open after its end.
  exec </dev/null >/dev/null 2>&1
  trap '' TERM
  read -r now _ </proc/uptime
  end=$((${now%%.*} + limit))
  while kill -0 "$1" && kill -0 "$2"; do
    read -r now _ </proc/uptime
    if [ "${now%%.*}" -ge "$end" ]; then : >"$d/timedout"; break; fi
    sleep 1
  done
  # What a script that has ended leaves in the background is left alone.
  kill -0 "$1" || exit 0
  kill -TERM "-$1"
  sleep 5
  kill -KILL "-$1"
}
limit=@LIMIT@
case ${2-} in
  inner)
    if [ "$limit" = 0 ] || [ ! -r /proc/uptime ] || ! command -v setsid >/dev/null; then run "$d"; fi
    setsid /bin/sh "$d/run" "$d" watched
    code=$?
    if [ -e "$d/timedout" ]; then mark timedout; fi
    exit "$code" ;;
  watched)
    watch $$ "$PPID" &
    run "$d" ;;
esac
# A connection that is lost and a folder without room leave the beginning of this file: nothing of the script may run then.
cut_short() { echo "the script did not arrive whole in $d: $1" >&2; rm -rf "$d"; exit 125; }
came=$(wc -c <"$d/run") || came=0
[ "$((came))" -eq "$length" ] || cut_short "$((came)) of $((length)) bytes"
tail -c "+$offset" "$d/run" >"$d/script" || cut_short "no room for its second copy"
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null) || boot=
mark begin "${boot:--}" "$d"
how=@BECOME@
if [ "$how" != none ] && [ "$(id -u)" = 0 ]; then how=none; fi
if [ "$how" = auto ]; then
  why=
  if why="sudo: $(sudo -n true 2>&1 </dev/null)"; then how=sudo
  elif why="$why; doas: $(doas -n true 2>&1 </dev/null)"; then how=doas
  elif why="$why; su: $(su root -c true 2>&1 </dev/null)"; then how=su
  else
    rm -rf "$d"
    mark noroot "$(printf %s "$why" | tr '\n' ' ')"
    exit 0
  fi
fi
case $how in
  none) /bin/sh "$d/run" "$d" inner ;;
  sudo) sudo -n -H /bin/sh "$d/run" "$d" inner ;;
  doas) doas -n /bin/sh "$d/run" "$d" inner ;;
  su) su root -c "/bin/sh '$d/run' '$d' inner" ;;
esac </dev/null
code=$?
cd /
rm -rf "$d"
mark exit "$code"
exit 0
