$user = @USER@
$created = '@CREATED@'
$script:failed = $false
# The folder of this very script, and the task that runs it, go when it is over.
$own = Split-Path -Leaf $PSScriptRoot
function Invoke-ForgeOperation([string]$name, [bool]$last, [scriptblock]$body) {
  if ($last -and $script:failed) { Write-Output "forge-seal $name left another operation failed"; return }
  try {
    $said = (@(& $body) -join '; ').Trim()
    if ($said -like 'skip *') { Write-Output "forge-seal $name skipped $($said.Substring(5))" }
    else { Write-Output "forge-seal $name done $said" }
  } catch {
    $script:failed = $true
    Write-Output ("forge-seal $name failed " + ($_.Exception.Message -replace '\s+', ' '))
  }
}
