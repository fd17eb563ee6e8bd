# forge: boot
$ProgressPreference='SilentlyContinue'
$w=Get-CimInstance Win32_Process -Filter "Name='wininit.exe'" | Select-Object -First 1
[Console]::Out.WriteLine('boot '+$w.CreationDate.ToUniversalTime().Ticks)
