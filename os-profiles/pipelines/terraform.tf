# A VM from the latest template, with the provider bpg/proxmox. The variables are what forge prints:
#
#   forge latest --profile debian-12 -o tfvars > template.auto.tfvars && terraform apply

terraform {
  required_providers {
    proxmox = {
      source = "bpg/proxmox"
    }
  }
}

variable "template_vmid" {
  type        = number
  description = "the template's VMID"
}

variable "template_name" {
  type        = string
  description = "its name"
}

variable "template_node" {
  type        = string
  description = "the node that holds it"
}

variable "name" {
  type    = string
  default = "web-1"
}

variable "ssh_key" {
  type        = string
  description = "a public key that may log in"
}

resource "proxmox_virtual_environment_vm" "this" {
  name        = var.name
  node_name   = var.template_node
  description = "from ${var.template_name}"

  clone {
    vm_id = var.template_vmid
    full  = true
  }

  agent {
    enabled = true
  }

  initialization {
    ip_config {
      ipv4 {
        address = "dhcp"
      }
    }
    user_account {
      username = "ops"
      keys     = [var.ssh_key]
    }
  }
}
