if ($script:failed) { exit 1 }
# What ends the way in is done when nobody comes that way any more, by a task of its own, and Windows switches itself off only
# when all of it went well: that is the proof that forge waits for.
$finish = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('@FINISH@'))
$finish = $finish.Replace('@DIR@', [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($PSScriptRoot)))
$service = New-Object -ComObject Schedule.Service
$service.Connect()
$task = $service.NewTask(0)
$task.Principal.UserId = 'SYSTEM'
$task.Principal.LogonType = 5
$task.Principal.RunLevel = 1
$task.Settings.ExecutionTimeLimit = 'PT0S'
$task.Settings.DisallowStartIfOnBatteries = $false
$task.Settings.StopIfGoingOnBatteries = $false
$task.Settings.Priority = 4
$action = $task.Actions.Create(0)
$action.Path = "$env:SystemRoot\System32\WindowsPowerShell\v1.0\powershell.exe"
$action.Arguments = '-NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand ' +
  [Convert]::ToBase64String([Text.Encoding]::Unicode.GetBytes($finish))
$registered = $service.GetFolder('\').RegisterTaskDefinition('forge-finish', $task, 6, 'SYSTEM', $null, 5)
[void]$registered.Run($null)
exit 0
