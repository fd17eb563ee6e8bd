$criteria = @CRITERIA@
$limit = @LIMIT@
$filters = @(@FILTERS@)
# What was installed in an earlier round; some updates are offered again for ever.
$known = @(@KNOWN@)
function Name-Update($update) { "$($update.Identity.UpdateID).$($update.Identity.RevisionNumber)" }
$session = New-Object -ComObject Microsoft.Update.Session
$session.ClientApplicationID = 'forge'
$searcher = $session.CreateUpdateSearcher()
Write-Output "Looking for updates: $criteria"
# Right after a start the service often fails for a while; a search that failed found nothing, which proves nothing.
for ($try = 1; ; $try++) {
  try {
    $found = $searcher.Search($criteria)
    if ([int]$found.ResultCode -eq 2) { break }
    $why = "result $($found.ResultCode)"
  } catch { $why = $_.Exception.Message }
  if ($try -ge 6) { throw "the search for updates failed: $why" }
  Write-Output "The search failed, and is done again: $why"
  Start-Sleep -Seconds 30
}
$wanted = New-Object -ComObject Microsoft.Update.UpdateColl
foreach ($update in $found.Updates) {
  if ($wanted.Count -ge $limit) { break }
  # What asks a person something can't be installed here.
  if ($update.InstallationBehavior.CanRequestUserInput) {
    Write-Output "Left out, it would ask a person: $($update.Title)"
    continue
  }
  if ($known -contains (Name-Update $update)) {
    Write-Output "Left out, it was installed and is offered again: $($update.Title)"
    continue
  }
  $take = $false
  foreach ($filter in $filters) {
    $word, $expression = $filter -split ':', 2
    $verdict = @($update) | Where-Object ([ScriptBlock]::Create($expression))
    if ($verdict) { $take = ($word -eq 'include'); break }
  }
  if (-not $take) {
    Write-Output "Left out by the filters: $($update.Title)"
    continue
  }
  if (-not $update.EulaAccepted) { $update.AcceptEula() }
  Write-Output "Wanted: $($update.Title)"
  [void]$wanted.Add($update)
}
$pending = (New-Object -ComObject Microsoft.Update.SystemInfo).RebootRequired
if ($wanted.Count -eq 0) {
  if ($pending) { Write-Output 'Windows wants to be restarted.'; exit 101 }
  Write-Output 'There is nothing to install.'
  exit 0
}
$downloader = $session.CreateUpdateDownloader()
$downloader.Updates = $wanted
$result = $downloader.Download()
# 2 is succeeded, 3 succeeded with errors (OperationResultCode).
if (@(2, 3) -notcontains [int]$result.ResultCode) {
  throw ('the download failed: result {0}, 0x{1:X8}' -f $result.ResultCode, $result.HResult)
}
$ready = New-Object -ComObject Microsoft.Update.UpdateColl
foreach ($update in $wanted) { if ($update.IsDownloaded) { [void]$ready.Add($update) } }
if ($ready.Count -eq 0) { throw 'nothing of what is wanted could be downloaded' }
$installer = $session.CreateUpdateInstaller()
$installer.AllowSourcePrompts = $false
$installer.Updates = $ready
$result = $installer.Install()
$failed = 0
for ($i = 0; $i -lt $ready.Count; $i++) {
  $one = $result.GetUpdateResult($i)
  $title = $ready.Item($i).Title
  if ([int]$one.ResultCode -eq 2) {
    Write-Output "Installed: $title ($(Name-Update ($ready.Item($i))))"
  } else {
    $failed++
    Write-Output ('Not installed (result {0}, 0x{1:X8}): {2}' -f $one.ResultCode, $one.HResult, $title)
  }
}
$pending = $result.RebootRequired -or (New-Object -ComObject Microsoft.Update.SystemInfo).RebootRequired
if ($pending) { exit 101 }
if ($failed -gt 0) { throw "$failed updates could not be installed" }
# What was installed may make room for more.
exit 102
