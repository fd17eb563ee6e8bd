$ProgressPreference='SilentlyContinue'
$t=[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String((-join @($input))))
try{[Console]::OutputEncoding=New-Object Text.UTF8Encoding $false}catch{}
& ([ScriptBlock]::Create($t))
