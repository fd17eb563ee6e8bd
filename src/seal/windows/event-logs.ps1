$left = 0
foreach ($log in @(wevtutil.exe el)) {
  # Some belong to the system and may not be emptied.
  $ErrorActionPreference = 'Continue'
  wevtutil.exe cl $log 2>$null
  if ($LASTEXITCODE -ne 0) { $left++ }
}
if ($left -gt 0) { "$left of them are the system's and were left" }
