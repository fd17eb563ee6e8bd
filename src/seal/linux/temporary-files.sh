# What scripts that were cut off and connections that were lost have left. What this script itself runs from and prints to
# stays: whoever is connected removes that.
op_temporary_files() {
  own=$(readlink "/proc/$$/fd/1") || own=
  own=${own%/*}
  removed=0
  for folder in "$ROOT"/tmp/forge-?????????? "$ROOT"/var/tmp/forge-?????????? "$ROOT"/var/tmp/forge-agent-* "$ROOT"/tmp/forge-agent-*; do
    if [ -d "$folder" ] && [ "$folder" != "${0%/*}" ] && [ "${folder##*/}" != "${own##*/}" ]; then
      rm -rf "$folder"
      removed=$((removed + 1))
    fi
  done
  if [ "$removed" = 0 ]; then skip "nothing was left"; fi
}
