$files = @((Join-Path $env:ProgramData 'ssh\administrators_authorized_keys')) +
  @(Get-Item -Path (Join-Path $env:SystemDrive 'Users\*\.ssh\authorized_keys') -Force -ErrorAction SilentlyContinue |
    ForEach-Object { $_.FullName })
foreach ($file in $files) {
  if (-not (Test-Path -LiteralPath $file)) { continue }
  $lines = @([IO.File]::ReadAllLines($file))
  $kept = @($lines | Where-Object { $_ -notmatch '@KEY_COMMENT@' })
  if ($kept.Count -eq 0) { Remove-Item -Force -LiteralPath $file }
  elseif ($kept.Count -lt $lines.Count) { [IO.File]::WriteAllLines($file, [string[]]$kept) }
}
$account = if ($created -eq 'yes') { Get-LocalUser -Name $user -ErrorAction SilentlyContinue }
if ($account) {
  $sid = $account.SID.Value
  # Its first login, at the console, may still be there and hold its folder.
  $own = "$env:COMPUTERNAME\$($account.Name)"
  Get-Process -IncludeUserName -ErrorAction SilentlyContinue | Where-Object { $_.UserName -eq $own } |
    Stop-Process -Force -ErrorAction SilentlyContinue
  Remove-LocalUser -SID $account.SID
  # Its folder can't go while a session holds it: the one of its first login may, up to the switching off.
  $clock = [Diagnostics.Stopwatch]::StartNew()
  while ($clock.Elapsed.TotalSeconds -lt 30) {
    try {
      Get-CimInstance Win32_UserProfile -Filter "SID='$sid'" | Remove-CimInstance
      break
    } catch { Start-Sleep -Seconds 1 }
  }
}
