# forge: script
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$nonce = '@NONCE@'
function Tell([string]$text) { [Console]::Out.WriteLine("$nonce $text"); [Console]::Out.Flush() }
function Plain([string]$coded) { [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($coded)) }
$boot = '-'
try {
  $first = Get-CimInstance Win32_Process -Filter "Name='wininit.exe'" | Select-Object -First 1
  $boot = [string]$first.CreationDate.ToUniversalTime().Ticks
} catch { }
$dir = Join-Path ([IO.Path]::GetTempPath()) ('forge-' + [guid]::NewGuid().ToString('N'))
$code = 125
try {
  [void][IO.Directory]::CreateDirectory($dir)
  Tell "begin $boot $dir"
  # Windows PowerShell 5 takes a file without a byte order mark for the system's code page.
  $encoding = New-Object Text.UTF8Encoding $true
  [IO.File]::WriteAllText("$dir\script.ps1", (Plain '@SCRIPT@'), $encoding)
  [IO.File]::WriteAllText("$dir\run.ps1", (Plain '@RUNNER@'), $encoding)
  if ('@ELEVATED@' -eq 'yes') {
    # A scheduled task: what comes over the network may not do everything (updates, for one) even as an administrator.
    # %~dp0 is the batch file's own folder: its path may hold letters that no code page of cmd.exe's has.
    $batch = "@echo off`r`n@INTERPRETER@ -File `"%~dp0run.ps1`" >`"%~dp0out`" 2>&1`r`n" +
      ">`"%~dp0exit.part`" echo %errorlevel%`r`nmove /y `"%~dp0exit.part`" `"%~dp0exit`" >nul`r`n"
    [IO.File]::WriteAllText("$dir\task.cmd", $batch, [Text.Encoding]::ASCII)
    $service = New-Object -ComObject Schedule.Service
    $service.Connect()
    $task = $service.NewTask(0)
    $task.Principal.UserId = 'SYSTEM'
    $task.Principal.LogonType = 5
    $task.Principal.RunLevel = 1
    # When nobody waits for it any more, its time ends it.
    $task.Settings.ExecutionTimeLimit = '@LIMIT@'
    $task.Settings.DisallowStartIfOnBatteries = $false
    $task.Settings.StopIfGoingOnBatteries = $false
    $task.Settings.Priority = 4
    $action = $task.Actions.Create(0)
    $action.Path = "$env:SystemRoot\System32\cmd.exe"
    # /s: the outer quotes go, and the inner ones hold whatever the path is.
    $action.Arguments = "/d /s /c `"`"$dir\task.cmd`"`""
    $folder = $service.GetFolder('\')
    $name = Split-Path -Leaf $dir
    $registered = $folder.RegisterTaskDefinition($name, $task, 6, 'SYSTEM', $null, 5)
    try {
      [void]$registered.Run($null)
      $out = [Console]::OpenStandardOutput()
      $from = 0
      $idle = 0
      while ($true) {
        $over = Test-Path -LiteralPath "$dir\exit"
        if (Test-Path -LiteralPath "$dir\out") {
          $file = [IO.File]::Open("$dir\out", 'Open', 'Read', 'ReadWrite, Delete')
          try {
            [void]$file.Seek($from, 'Begin')
            $file.CopyTo($out)
            $from = $file.Position
          } finally { $file.Close() }
          $out.Flush()
        }
        if ($over) { $code = [int]([IO.File]::ReadAllText("$dir\exit").Trim()); break }
        # 4 is running and 2 is queued: a task that is neither and left no exit status was killed.
        if (@(2, 4) -contains [int]$registered.State) { $idle = 0 } else { $idle++ }
        if ($idle -gt 40) { throw "the scheduled task ended without an exit status (its result: $($registered.LastTaskResult))" }
        Start-Sleep -Milliseconds 250
      }
    } finally {
      if (-not (Test-Path -LiteralPath "$dir\exit")) { $registered.Stop(0) }
      $folder.DeleteTask($name, 0)
    }
  } else {
    & @INTERPRETER@ -File "$dir\run.ps1"
    $code = $LASTEXITCODE
  }
} catch {
  [Console]::Error.WriteLine(($_ | Out-String).TrimEnd())
} finally {
  # The task's own shell may hold its file for a moment yet.
  for ($try = 0; $try -lt 40 -and (Test-Path -LiteralPath $dir); $try++) {
    if ($try -gt 0) { Start-Sleep -Milliseconds 250 }
    Remove-Item -Recurse -Force -LiteralPath $dir -ErrorAction SilentlyContinue
  }
}
Tell "exit $code"
exit 0
