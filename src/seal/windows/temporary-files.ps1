# Scripts that a restart cut off left a task and a folder behind, with the variables that they were given.
$service = New-Object -ComObject Schedule.Service
$service.Connect()
$tasks = $service.GetFolder('\')
foreach ($task in @($tasks.GetTasks(1))) {
  if ($task.Name -notlike 'forge-*' -or $task.Name -eq $own) { continue }
  $task.Stop(0)
  $tasks.DeleteTask($task.Name, 0)
}
$users = Join-Path $env:SystemDrive 'Users'
$folders = @(Get-Item -Path (Join-Path $users '*\AppData\Local\Temp') -Force -ErrorAction SilentlyContinue | ForEach-Object { $_.FullName })
foreach ($folder in @("$env:SystemRoot\Temp", (Join-Path $users "$user\AppData\Local\Temp"))) {
  if (-not (Test-Path -LiteralPath $folder)) { continue }
  # What is in use stays.
  Get-ChildItem -LiteralPath $folder -Force | Where-Object { $_.Name -ne $own } |
    Remove-Item -Recurse -Force -ErrorAction SilentlyContinue
}
foreach ($folder in $folders + "$env:SystemRoot\Temp") {
  foreach ($item in @(Get-ChildItem -LiteralPath $folder -Force -Filter 'forge-*')) {
    if ($item.Name -ne $own) { Remove-Item -Recurse -Force -LiteralPath $item.FullName }
  }
}
