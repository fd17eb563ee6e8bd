# Setup keeps the answers of the installation, with the password of the user that they make. Those below Panther would also
# be the first that a clone's setup finds ("Windows Setup Automation Overview": implicit answer file search order).
$panther = Join-Path $env:SystemRoot 'Panther'
foreach ($name in @('unattend.xml', 'unattend-original.xml', 'autounattend.xml', 'Unattend\unattend.xml', 'Unattend\autounattend.xml')) {
  $file = Join-Path $panther $name
  if (Test-Path -LiteralPath $file) { Remove-Item -Force -LiteralPath $file }
}
Remove-ItemProperty -Path 'HKLM:\SYSTEM\Setup' -Name 'UnattendFile' -ErrorAction SilentlyContinue
# The password of the first login.
$winlogon = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon'
foreach ($name in @('DefaultPassword', 'AutoAdminLogon', 'AutoLogonCount', 'DefaultUserName')) {
  Remove-ItemProperty -Path $winlogon -Name $name -ErrorAction SilentlyContinue
}
$left = (Get-ItemProperty -Path $winlogon).PSObject.Properties['DefaultPassword']
if ($left) { throw 'the password of the first login could not be removed from the registry' }
