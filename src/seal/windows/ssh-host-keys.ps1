$keys = @(Get-ChildItem -Path (Join-Path $env:ProgramData 'ssh\ssh_host_*') -Force -ErrorAction SilentlyContinue)
if ($keys.Count -eq 0) { 'skip there are none'; return }
$keys | Remove-Item -Force
