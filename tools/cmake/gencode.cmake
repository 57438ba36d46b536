# quantloom_gencode(out architectures...): nvcc's flags for machine code of each architecture, and where there are
# several, PTX of the latest plain one from 9.0 on, which later GPUs compile for themselves. PTX of an earlier one has
# none of the waits that the launches there rely on (kernels/transformer/overlap.cuh): a later GPU would run ahead of
# its data.
# Written out as -gencode because CMake before 3.26 does not know 90a.
function(quantloom_gencode out)
  set(flags "")
  if(QUANTLOOM_EMULATED_GPU)
    # The emulator reads PTX as text, and nothing else where no architecture was asked for.
    list(APPEND flags "-gencode=arch=compute_90a,code=compute_90a" "--no-compress")
    if(NOT QUANTLOOM_CUDA_ARCHS)
      set(ARGN "")
    endif()
  endif()
  set(latest 0)
  foreach(arch ${ARGN})
    if(NOT arch MATCHES "^[0-9]+a?$")
      message(FATAL_ERROR "QUANTLOOM_CUDA_ARCHS has '${arch}'; an architecture is a number such as 80 or 90a")
    endif()
    list(APPEND flags "-gencode=arch=compute_${arch},code=sm_${arch}")
    if(arch MATCHES "^[0-9]+$" AND arch GREATER latest)
      set(latest ${arch})
    endif()
  endforeach()
  list(LENGTH ARGN count)
  if(count GREATER 1 AND NOT latest LESS 90)
    list(APPEND flags "-gencode=arch=compute_${latest},code=compute_${latest}")
  endif()
  set(${out} ${flags} PARENT_SCOPE)
endfunction()
