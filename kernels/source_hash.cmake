# Hashes, for every row of the kernel table, the sources that can change its speed: what the compiler says that the
# row's method includes, on its level, and all that runs it.

# Sets <source>_includes, for each of the sources, to the files of this folder that it includes, itself too, if compiled
# with `flags`.
function(list_includes flags)
  execute_process(
    COMMAND ${CMAKE_CXX_COMPILER} ${CMAKE_CXX_COMPILER_ARG1} -std=gnu++17 -MM -I. -Iinclude "-I${generated}" ${flags}
      -x c++ ${ARGN}
    WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
    OUTPUT_VARIABLE rules RESULT_VARIABLE failed ERROR_VARIABLE message)
  if(failed)
    message(FATAL_ERROR "the compiler must list what ${ARGN} include, but says: ${message}")
  endif()
  # One rule per source, in their order: "px.o: conv/px.h conv/call.h \\".
  string(REGEX REPLACE "\\\\\n" " " rules "${rules}")
  string(REGEX REPLACE "\n$" "" rules "${rules}")
  string(REPLACE "\n" ";" rules "${rules}")
  foreach(source rule IN ZIP_LISTS ARGN rules)
    string(REGEX REPLACE "^[^:]*:" "" rule "${rule}")
    separate_arguments(files UNIX_COMMAND "${rule}")
    set(own "")
    foreach(file IN LISTS files)
      get_filename_component(file "${file}" REALPATH BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
      file(RELATIVE_PATH file "${here}" "${file}")
      if(NOT file MATCHES "^\\.\\./|^/" AND NOT "${here}/${file}" IN_LIST generated_files)
        list(APPEND own "${file}")
      endif()
    endforeach()
    set("${source}_includes" ${own} PARENT_SCOPE)
  endforeach()
endfunction()

# Gives `out` the hash of the files' contents and of `text`.
function(hash_files out text)
  set(parts "${text}")
  foreach(file IN LISTS ARGN)
    file(SHA256 "${CMAKE_CURRENT_SOURCE_DIR}/${file}" digest)
    string(APPEND parts "|${file}=${digest}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  endforeach()
  string(SHA256 digest "${parts}")
  string(SUBSTRING "${digest}" 0 16 digest)
  set(${out} "${digest}" PARENT_SCOPE)
endfunction()

get_filename_component(here "${CMAKE_CURRENT_SOURCE_DIR}" REALPATH)
get_filename_component(generated_files "${generated}/levels.h" REALPATH)

# By method: its header, and the operator that calls its kernels.
set(methods px oc wg wf mx wp)
set(header_of_px conv/px.h)
set(header_of_oc conv/oc.h)
set(header_of_mx conv/mx.h)
set(header_of_wg conv/wg.h)
set(header_of_wf conv/wg.h)
set(header_of_wp conv/wg.h)
set(operator_of_px conv/convolution.cpp)
set(operator_of_oc conv/convolution.cpp)
set(operator_of_mx conv/convolution.cpp)
set(operator_of_wg conv/winograd.cpp)
set(operator_of_wf conv/winograd.cpp)
set(operator_of_wp conv/winograd.cpp)
set(all_headers conv/px.h conv/oc.h conv/mx.h conv/wg.h)
set(all_operators conv/convolution.cpp conv/winograd.cpp)

# No part in the time of a convolution: the choice and the listing of rows, other operators, counting of lines, which
# levels there are, the borders of the library.
set(without_effect ${all_operators} conv/table.cpp conv/depthwise.cpp conv/depthwise.h conv/dw.h operators/pooling.h
  operators/check.cpp operators/check.h cpu/isa.cpp cpu/isa.h cpu/probe.cpp executor/api.cpp executor/layout.cpp
  executor/line_moves.cpp executor/line_moves.h conv/touched.cpp
  include/autosparse.h)
set(shared_sources ${sources})
list(FILTER shared_sources EXCLUDE REGEX "^artifact/")
list(REMOVE_ITEM shared_sources ${without_effect})

list_includes("${common_flags}" ${shared_sources} ${all_operators})
set(shared conv/kernels.cpp)
foreach(source IN LISTS shared_sources)
  list(APPEND shared ${${source}_includes})
endforeach()

set(source_hashes "")
set(source_lists "")
foreach(level IN LISTS built_levels)
  # Of the nearest level that has planes of its own.
  set(with_planes ${level})
  while(NOT "operators/planes.cpp" IN_LIST sources_of_${with_planes})
    set(with_planes ${extends_${with_planes}})
  endwhile()
  list_includes("${flags_${with_planes}}" operators/planes.cpp)
  list_includes("${flags_${level}}" ${all_headers})
  foreach(method IN LISTS methods)
    set(files ${${header_of_${method}}_includes} ${${operator_of_${method}}_includes} ${operators/planes.cpp_includes}
      ${shared})
    list(REMOVE_DUPLICATES files)
    list(REMOVE_ITEM files ${without_effect})
    list(APPEND files ${operator_of_${method}})
    list(SORT files)
    hash_files(digest "${method} ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_CXX_FLAGS_RELEASE} \
${flags_${level}}" ${files})
    string(APPEND source_hashes "    {${level}_level, Method::${method}, \"${digest}\"},\n")
    list(JOIN files " " files)
    string(APPEND source_lists "${level} ${method} ${digest} ${files}\n")
  endforeach()
endforeach()
configure_file(source_hash.h.in "${generated}/source_hash.h" @ONLY)
# For whoever wants to know what a hash covers.
file(WRITE "${generated}/source_hash.txt" "${source_lists}")
