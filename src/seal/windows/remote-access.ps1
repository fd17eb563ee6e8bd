# What forge's answer file opened, by its own note of what was there before.
$note = 'HKLM:\SOFTWARE\forge'
if (Test-Path -LiteralPath $note) {
  $was = Get-ItemProperty -LiteralPath $note
  if ((Get-Service -Name WinRM).Status -ne 'Running') { Start-Service -Name WinRM }
  Set-Item -Force -Path WSMan:\localhost\Service\Auth\Basic -Value $false
  Set-Item -Force -Path WSMan:\localhost\Service\AllowUnencrypted -Value $false
  foreach ($listener in @(Get-ChildItem -Path WSMan:\localhost\Listener)) {
    $http = $listener.Keys -contains 'Transport=HTTP'
    # One that Windows itself came with stays, at its own port.
    if ($http -and $was.HttpListener -eq 1) { Set-Item -Force -Path "WSMan:\localhost\Listener\$($listener.Name)\Port" -Value 5985 }
    else { Remove-Item -Recurse -Force -Path "WSMan:\localhost\Listener\$($listener.Name)" }
  }
  if ($was.Certificate) { Remove-Item -Force -LiteralPath "Cert:\LocalMachine\My\$($was.Certificate)" -DeleteKey }
  Get-NetFirewallRule -Name 'forge-winrm' -ErrorAction SilentlyContinue | Remove-NetFirewallRule
  if ($was.HttpListener -ne 1) {
    Get-NetFirewallRule -Name 'WINRM-HTTP-In-TCP*' -ErrorAction SilentlyContinue | Disable-NetFirewallRule
  }
  if ($was.TokenFilter -ne 1) {
    Remove-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System' -Name 'LocalAccountTokenFilterPolicy' -ErrorAction SilentlyContinue
  }
  Set-Service -Name WinRM -StartupType $was.WinRMStart
  Remove-Item -Recurse -Force -LiteralPath $note
}
