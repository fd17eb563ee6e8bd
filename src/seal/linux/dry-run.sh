# The dry run: the operations are carried out on a copy of the guest's files that only this script sees, and that is gone
# when it ends: an overlay over each disk, in a mount namespace of its own. $1 says how far that has come.
DRY=/run/forge-dry

dry_outside() {
  command -v unshare >/dev/null || { echo "unshare is missing: there is no dry run in this guest"; exit 1; }
  mkdir -p "$DRY"
  code=0
  unshare -m /bin/sh "$0" mounts || code=$?
  rmdir "$DRY" 2>/dev/null || :
  exit "$code"
}

# overlay PLACE: what is mounted there, to be written to without being changed.
dry_overlay() {
  mkdir -p "$DRY/upper$1/files" "$DRY/work$1/files"
  mount -t overlay -o "lowerdir=$1,upperdir=$DRY/upper$1/files,workdir=$DRY/work$1/files" overlay "$DRY/root${1%/}" 2>"$DRY/why"
}

dry_mounts() {
  mount -t tmpfs -o mode=700 tmpfs "$DRY"
  mkdir "$DRY/root"
  command -v modprobe >/dev/null && modprobe overlay 2>/dev/null || :
  dry_overlay / || { echo "this guest's kernel makes no overlay, so there is no dry run: $(cat "$DRY/why")"; exit 1; }
  while read -r _ place type _; do
    case $type in
      ext2|ext3|ext4|xfs|btrfs|f2fs|jfs|zfs|vfat)
        if [ "$place" != / ]; then
          dry_overlay "$place" || { mount --bind "$place" "$DRY/root$place"; mount -o remount,bind,ro "$DRY/root$place"; }
        fi ;;
    esac
  done </proc/mounts
  for place in proc sys dev; do mount --rbind "/$place" "$DRY/root/$place"; done
  mount -t tmpfs tmpfs "$DRY/root/run"
  mount -t tmpfs tmpfs "$DRY/root/tmp"
  # What cloud-init says of this boot.
  if [ -d /run/cloud-init ]; then
    mkdir "$DRY/root/run/cloud-init"
    mount --bind /run/cloud-init "$DRY/root/run/cloud-init"
  fi
  mkdir "$DRY/root$DRY"
  cp "$0" "$DRY/root$DRY/script"
  mkdir "$DRY/root$DRY/upper"
  mount --bind "$DRY/upper" "$DRY/root$DRY/upper"
  exec chroot "$DRY/root" /bin/sh "$DRY/script" inside
}

# Prints what has changed so far: `-` for what is gone, `+` for what was written.
dry_all() {
  find "$DRY/upper" \( -type c -o -type f -o -type l \) 2>/dev/null | while read -r file; do
    name=${file#"$DRY/upper"}
    name=${name%%/files/*}/${name#*/files/}
    sign=+
    if [ -c "$file" ] && [ ! -f "$file" ]; then sign=-; fi
    printf '%s%s\n' "$sign" "/${name#/}"
  done | sort
}

# Prints what one operation has changed, in words.
dry_changes() {
  dry_all >"$DRY/now"
  new=$(grep -vxFf "$DRY/before" "$DRY/now" || :)
  mv "$DRY/now" "$DRY/before"
  for sign in - +; do
    list=$(printf '%s\n' "$new" | grep "^[$sign]" | cut -c 2-)
    [ -n "$list" ] || continue
    count=$(printf '%s\n' "$list" | wc -l)
    word=change
    if [ "$sign" = - ]; then word=remove; fi
    few=$(printf '%s\n' "$list" | head -n 40 | tr '\n' ' ')
    rest=
    if [ "$count" -gt 40 ]; then rest="and $((count - 40)) more"; fi
    printf 'would %s %s: %s%s; ' "$word" "$((count))" "$few" "$rest"
  done
}

run_op() {
  case $1 in
    leak-gate|free-space|fstrim) mark op "$1" skipped "it changes nothing"; return 0 ;;
  esac
  out=$(set -e; "op_$2" 2>&1 </dev/null)
  code=$?
  text=$(printf '%s' "$out" | sed '/^[[:space:]]*$/d' | tail -n 3 | tr '\n' ' ')
  case $code in
    0) told=$(dry_changes); mark op "$1" done "${told:-would change nothing}" ;;
    3) mark op "$1" skipped "$text" ;;
    *) mark op "$1" done "would fail: ${text:-status $code}" ;;
  esac
}
run_last_op() { run_op "$1" "$2"; }

case ${1:-} in
  '') dry_outside ;;
  mounts) set -e; dry_mounts ;;
  inside) : >"$DRY/before" ;;
  *) exit 1 ;;
esac
# From here on everything happens on the copy.
[ -d "$DRY/upper" ] && [ ! -e "$DRY/root" ] || exit 1
