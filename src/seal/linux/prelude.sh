# Every path below begins with $ROOT, which is empty in a guest; tests point it at a folder.
ROOT=${FORGE_SEAL_ROOT:-}
USER_NAME=@USER@
CREATED=@CREATED@
KEY_COMMENT=@KEY_COMMENT@
failed=

# Ends an operation that finds nothing to do, saying why.
skip() { printf '%s\n' "$*"; exit 3; }
# Ends an operation that could not do its work, saying why.
fail() { printf '%s\n' "$*"; exit 1; }

# Prints where a program is, in the guest (or in the folder that stands for it).
tool() {
  for tool_dir in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do
    if [ -x "$ROOT$tool_dir/$1" ]; then printf '%s\n' "$ROOT$tool_dir/$1"; return 0; fi
  done
  return 1
}

# Prints the home folders of all accounts, each once.
homes() {
  { cut -d: -f6 "$ROOT/etc/passwd" 2>/dev/null; echo /root; } | sort -u | while read -r home; do
    case $home in
      /|/bin|/sbin|/usr/*|/dev*|/proc*|/nonexistent|'') ;;
      *) if [ -d "$ROOT$home" ]; then printf '%s\n' "$ROOT$home"; fi ;;
    esac
  done
}

# Prints one field of the build user's line in /etc/passwd.
account() { grep "^$USER_NAME:" "$ROOT/etc/passwd" 2>/dev/null | head -n 1 | cut -d: -f"$1"; }

# Removes files by patterns below $ROOT; prints how many there were.
remove() {
  removed=0
  for pattern in "$@"; do
    for file in "$ROOT"$pattern; do
      if [ -e "$file" ] || [ -L "$file" ]; then rm -rf "$file"; removed=$((removed + 1)); fi
    done
  done
}

# Runs one operation in a subshell and tells how it ended, with its last words.
run_op() {
  out=$(set -e; "op_$2" 2>&1 </dev/null)
  code=$?
  text=$(printf '%s' "$out" | sed '/^[[:space:]]*$/d' | tail -n 3 | tr '\n' ' ')
  case $code in
    0) mark op "$1" done "$text" ;;
    3) mark op "$1" skipped "$text" ;;
    *) failed="$failed $1"; mark op "$1" failed "${text:-status $code}" ;;
  esac
}

# Like run_op, for what makes another login impossible: not after a failure, so that the guest can still be entered.
run_last_op() {
  if [ -n "$failed" ]; then mark op "$1" left "not done after the failure of$failed"; else run_op "$1" "$2"; fi
}
