$ProgressPreference = 'SilentlyContinue'
$ErrorActionPreference = 'Stop'
try { [Console]::OutputEncoding = New-Object Text.UTF8Encoding $false } catch { }
function Set-ForgeVariable([string]$name, [string]$coded) {
  $text = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($coded))
  [Environment]::SetEnvironmentVariable($name, $text, 'Process')
}
@VARIABLES@
@DIR@
$global:LASTEXITCODE = 0
try { & (Join-Path $PSScriptRoot 'script.ps1') } catch {
  [Console]::Error.WriteLine(($_ | Out-String).TrimEnd())
  exit 1
}
exit $global:LASTEXITCODE
