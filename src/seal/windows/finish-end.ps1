  shutdown.exe /s /f /t 5 /c forge
  if ($LASTEXITCODE -ne 0) { throw "shutdown.exe ended with $LASTEXITCODE" }
  $tasks.DeleteTask('forge-finish', 0)
} catch {
  shutdown.exe /a
  [IO.File]::WriteAllText($log, ($_ | Out-String))
  exit 1
}
