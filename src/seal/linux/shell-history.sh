op_shell_history() {
  homes | {
    removed=0
    while read -r home; do
      for name in .bash_history .ash_history .sh_history .zsh_history .histfile .python_history .mysql_history \
        .psql_history .lesshst .viminfo .wget-hsts .sudo_as_admin_successful; do
        if [ -e "$home/$name" ]; then rm -f "$home/$name"; removed=$((removed + 1)); fi
      done
    done
    if [ "$removed" = 0 ]; then skip "no history is kept"; fi
    echo "$removed files"
  }
}
