# Removes the build keys' lines from all accounts; cloud-init puts the key into root's too.
remove_keys() {
  homes | while read -r home; do
    for file in "$home/.ssh/authorized_keys" "$home/.ssh/authorized_keys2"; do
      if [ -f "$file" ] && grep -q " $KEY_COMMENT[[:space:]]*\$" "$file"; then
        sed -i "/ $KEY_COMMENT[[:space:]]*\$/d" "$file"
        if [ ! -s "$file" ]; then rm -f "$file"; fi
      fi
    done
  done
}

# Removes the user's own rules; a file without any rule left goes too.
remove_rules() {
  for file in "$ROOT"/etc/sudoers.d/* "$ROOT"/etc/doas.d/*; do
    if [ -f "$file" ] && grep -Eq "^$USER_NAME[[:space:]]|^permit .*[[:space:]]$USER_NAME([[:space:]]|\$)" "$file"; then
      sed -E -i "/^$USER_NAME[[:space:]]/d; /^permit .*[[:space:]]$USER_NAME([[:space:]]|\$)/d" "$file"
      if ! grep -Eq '^[[:space:]]*(#include|@include|[^#[:space:]])' "$file"; then rm -f "$file"; fi
    fi
  done
}

op_build_user() {
  if [ "$CREATED" != yes ]; then
    remove_keys
    echo "the user was there before the build: only the key is removed"
    return 0
  fi
  uid=$(account 3)
  if [ -z "$uid" ]; then
    remove_keys
    remove_rules
    skip "there is no user $USER_NAME"
  fi
  if [ "$uid" = 0 ]; then
    remove_keys
    echo "$USER_NAME is root: only the key is removed"
    return 0
  fi
  home=$(account 6)
  # This very script runs in a session of that user: -f, and what is said about running processes is no failure.
  said=
  if program=$(tool userdel); then said=$("$program" -f -r "$USER_NAME" 2>&1) || true
  elif program=$(tool deluser); then said=$("$program" --remove-home "$USER_NAME" 2>&1) || true
  fi
  if [ -n "$(account 3)" ]; then
    for file in passwd shadow group gshadow subuid subgid; do
      if [ -f "$ROOT/etc/$file" ]; then sed -i "/^$USER_NAME:/d" "$ROOT/etc/$file"; fi
    done
    # And out of the members of other groups.
    for file in group gshadow; do
      if [ -f "$ROOT/etc/$file" ]; then
        sed -E -i "s/([:,])$USER_NAME(,|\$)/\\1\\2/; s/:,/:/; s/,,/,/; s/,\$//" "$ROOT/etc/$file"
      fi
    done
  fi
  # The programs keep what was there before them: with it the hash of a password.
  for file in passwd- shadow- group- gshadow- subuid- subgid-; do
    if [ -f "$ROOT/etc/$file" ]; then sed -i "/^$USER_NAME:/d" "$ROOT/etc/$file"; fi
  done
  if [ -n "$(account 3)" ]; then fail "the user is still there: $said"; fi
  case $home in
    /home/?*|/var/home/?*|/export/home/?*) rm -rf "$ROOT$home" ;;
  esac
  remove "/var/mail/$USER_NAME" "/var/spool/mail/$USER_NAME" "/var/spool/cron/crontabs/$USER_NAME" \
    "/var/spool/cron/$USER_NAME" "/var/lib/systemd/linger/$USER_NAME" "/var/lib/sudo/lectured/$USER_NAME" \
    "/var/db/sudo/lectured/$uid"
  remove_rules
  remove_keys
  case $home in
    /|'') ;;
    *) if [ -e "$ROOT$home" ]; then fail "the user's home $home is still there: $said"; fi ;;
  esac
}
