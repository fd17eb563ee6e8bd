d=$1
if [ "${2-}" = inner ]; then
@EXPORTS@
  cd @DIR@ || exit 124
  exec @INTERPRETER@ "$d/script"
fi
mark() { printf '%s %s\n' "$nonce" "$*"; }
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
tail -c "+$offset" "$d/run" >"$d/script"
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
