$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$user = @USER@
$created = '@CREATED@'
$dir = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('@DIR@'))
$own = Split-Path -Leaf $dir
$log = Join-Path $env:SystemRoot 'Temp\forge-finish.log'
$service = New-Object -ComObject Schedule.Service
$service.Connect()
$tasks = $service.GetFolder('\')
function Wait-ForgeUntil([int]$seconds, [scriptblock]$so) {
  $clock = [Diagnostics.Stopwatch]::StartNew()
  while (-not (& $so)) {
    if ($clock.Elapsed.TotalSeconds -gt $seconds) { return $false }
    Start-Sleep -Milliseconds 500
  }
  $true
}
try {
  # The session that sealed Windows removes its task and its folder when it is over.
  $over = Wait-ForgeUntil 120 {
    (-not (Test-Path -LiteralPath $dir)) -and @($tasks.GetTasks(1) | Where-Object { $_.Name -eq $own }).Count -eq 0
  }
  if (-not $over) { throw "the session that sealed Windows left $dir or its task behind" }
  # Each WinRM shell has a process of this name: who asks by it has heard the end when there is none. A stranger's may stay.
  [void](Wait-ForgeUntil 60 { -not (Get-Process -Name winrshost -ErrorAction SilentlyContinue) })
